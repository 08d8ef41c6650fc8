package token

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const (
	maxKeyFile = 1 << 20 // bytes of a PEM file or key set
	maxKeys    = 100     // keys in one
)

// ParsePEM reads the public keys in a PEM file: PUBLIC KEY, RSA PUBLIC KEY and
// CERTIFICATE blocks. Of a certificate only the key counts, not its dates or
// who signed it. The keys have no ID and the default algorithm of their type.
// At most 1 MiB and 100 keys; a block that is damaged or of another type is an
// error.
func ParsePEM(data []byte) ([]Key, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("token: PEM file of %d bytes: at most %d", len(data), maxKeyFile)
	}
	var keys []Key
	var errs []error
	blocks := 0
	for rest := data; ; blocks++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		key, err := pemKey(block)
		if err != nil {
			errs = append(errs, fmt.Errorf("block %d: %w", blocks+1, err))
			continue
		}
		keys = append(keys, key)
	}
	// The decoder passes over what it can not read.
	if begun := bytes.Count(data, []byte("-----BEGIN")); begun != blocks {
		errs = append(errs, fmt.Errorf("%d of %d blocks can not be read", begun-blocks, begun))
	}
	if blocks == 0 {
		errs = append(errs, errors.New("no key in it"))
	}
	if blocks > maxKeys {
		errs = append(errs, fmt.Errorf("%d keys: at most %d", blocks, maxKeys))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("token: PEM file: %w", err)
	}
	return keys, nil
}

func pemKey(block *pem.Block) (Key, error) {
	public, err := pemPublic(block)
	if err != nil {
		return Key{}, err
	}
	if err := checkStrength(public); err != nil {
		return Key{}, err
	}
	return Key{Algorithm: possible(public)[0], Public: public}, nil
}

// pemPublic keeps parser errors to itself: they may quote the file.
func pemPublic(block *pem.Block) (any, error) {
	switch {
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, errors.New("is a private key; the gateway needs the public key only, and whoever has read this file can sign")
	case block.Type == "PUBLIC KEY":
		if public, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			return public, nil
		}
	case block.Type == "RSA PUBLIC KEY":
		if public, err := x509.ParsePKCS1PublicKey(block.Bytes); err == nil {
			return public, nil
		}
	case block.Type == "CERTIFICATE":
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil {
			return certificate.PublicKey, nil
		}
	default:
		return nil, errors.New("must be PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE")
	}
	return nil, fmt.Errorf("%s: is damaged or of an unknown kind", block.Type)
}
