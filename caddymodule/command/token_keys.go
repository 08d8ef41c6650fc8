package command

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"

	"github.com/moat-gateway/moat/internal/token"
)

// encodedPair is a key pair as PEM.
type encodedPair struct {
	key             crypto.PublicKey
	private, public []byte
}

func encodePair(key any) (*encodedPair, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T is no key pair", key)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, err
	}
	return &encodedPair{
		key:     signer.Public(),
		private: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		public:  pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
	}, nil
}

// encodeKeySet returns a key set (RFC 7517) of one public key that is bound to
// one algorithm. What the gateway would not read is an error.
func encodeKeySet(public crypto.PublicKey, kid, alg string) ([]byte, error) {
	jwk, err := keyMembers(public)
	if err != nil {
		return nil, err
	}
	if kid == "" {
		if kid, err = thumbprint(jwk); err != nil {
			return nil, err
		}
	}
	maps.Copy(jwk, map[string]string{"kid": kid, "alg": alg, "use": "sig"})
	set, err := json.MarshalIndent(map[string]any{"keys": []any{jwk}}, "", "  ")
	if err != nil {
		return nil, err
	}
	if _, err := token.ParseJWKS(set); err != nil {
		return nil, err
	}
	return append(set, '\n'), nil
}

// keyMembers returns the members that make a key (RFC 7518 section 6, RFC 8037
// section 2), and no others: the thumbprint is over these.
func keyMembers(public crypto.PublicKey) (map[string]string, error) {
	text := base64.RawURLEncoding.EncodeToString
	switch key := public.(type) {
	case *rsa.PublicKey:
		return map[string]string{"kty": "RSA", "n": text(key.N.Bytes()), "e": text(big.NewInt(int64(key.E)).Bytes())}, nil
	case *ecdsa.PublicKey:
		point, err := key.Bytes() // 4, x, y; both coordinates in full length
		if err != nil {
			return nil, err
		}
		x, y := point[1:1+len(point)/2], point[1+len(point)/2:]
		return map[string]string{"kty": "EC", "crv": key.Params().Name, "x": text(x), "y": text(y)}, nil
	case ed25519.PublicKey:
		return map[string]string{"kty": "OKP", "crv": "Ed25519", "x": text(key)}, nil
	}
	return nil, fmt.Errorf("a %T has no form in a key set", public)
}

// thumbprint names a key by what it is (RFC 7638): the members in the order of
// their names, without white space.
func thumbprint(members map[string]string) (string, error) {
	text, err := json.Marshal(members)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// readPrivateKey reads the one private key in a PEM file.
func readPrivateKey(name string) (crypto.Signer, error) {
	data, err := readInput("--key", name)
	if err != nil {
		return nil, err
	}
	key, err := parsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("--key %s: %w", name, err)
	}
	return key, nil
}

// parsePrivateKey keeps parser errors to itself: they may quote the file.
func parsePrivateKey(data []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "EC PARAMETERS": // What openssl puts in front.
			continue
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			return nil, fmt.Errorf("is a %s; it must be an unencrypted PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY", printable(block.Type))
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, fmt.Errorf("the %s is encrypted, damaged or of an unknown kind", block.Type)
		}
		return signer, nil
	}
	return nil, errors.New("has no PEM block in it")
}

// chooseAlgorithm returns the first algorithm that the key can serve: of the
// wanted ones, or of all when none is wanted.
func chooseAlgorithm(public any, wanted []string) (string, error) {
	if len(wanted) == 0 {
		wanted = token.Algorithms()
	}
	var fault error
	for _, alg := range wanted {
		_, err := token.NewStaticKeys([]token.Key{{Public: public, Algorithm: alg}}, nil)
		if err == nil {
			return alg, nil
		}
		if fault == nil {
			fault = err
		}
	}
	return "", fmt.Errorf("the key serves none of the algorithms %q: %w", wanted, fault)
}
