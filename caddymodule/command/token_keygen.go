package command

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/internal/token"
)

// keygen is the command line of moat token keygen.
type keygen struct {
	alg, kid, out string
	bits          int
	jwks          bool
}

func newKeygen() *cobra.Command {
	k := new(keygen)
	cmd := &cobra.Command{
		Use:   "keygen [--alg <algorithm>] [--bits <length>] [--out <prefix>] [--jwks [--kid <id>]]",
		Short: "Makes a key pair or a shared secret",
		Long: `Makes a key for development.

For RS, PS, ES and EdDSA it writes a key pair: PREFIX.private.pem, which only
you can read, and PREFIX.public.pem, for the word key of an issuer; with --jwks
also PREFIX.jwks.json, for the word jwks. It prints the names of the files.

For HS it prints a random secret and nothing else, or writes it to
PREFIX.secret with --out. The text itself is the secret; it is not decoded.

A file that exists is never overwritten. Exit code: 0 done, 2 not.`,
		Example: `  moat token keygen
  moat token keygen --alg RS256 --bits 3072 --out dev --jwks --kid dev-1
  moat token keygen --alg HS256 --out dev`,
		DisableFlagsInUseLine: true,
	}
	f := cmd.Flags()
	f.StringVar(&k.alg, "alg", "ES256", "Algorithm: "+strings.Join(token.Algorithms(), ", "))
	f.IntVar(&k.bits, "bits", 0, "Length of an RSA key, 2048 to 8192 (default: 2048)")
	f.StringVar(&k.out, "out", "", "Prefix of the files (default for key pairs: the algorithm in lower case)")
	f.BoolVar(&k.jwks, "jwks", false, "Also write the public key as a key set")
	f.StringVar(&k.kid, "kid", "", "Name of the key in the key set (default: its RFC 7638 thumbprint)")
	tokenRun(cmd, k.run)
	return cmd
}

func (k *keygen) run(cmd *cobra.Command, args []string) (int, error) {
	if err := noArguments(args); err != nil {
		return 0, err
	}
	secret := strings.HasPrefix(k.alg, "HS")
	switch {
	case secret && (k.jwks || k.kid != ""):
		return 0, fmt.Errorf("--alg %s: a shared secret has no place in a key set, so neither --jwks nor --kid go with it", k.alg)
	case k.kid != "" && !k.jwks:
		return 0, errors.New("--kid: names the key in a key set, and there is none without --jwks")
	}
	key, err := token.GenerateKey(k.alg, k.bits)
	if err != nil {
		return 0, err
	}
	if bytes, ok := key.([]byte); ok {
		return 0, k.writeSecret(cmd.OutOrStdout(), base64.RawURLEncoding.EncodeToString(bytes))
	}
	return 0, k.writePair(cmd.OutOrStdout(), key)
}

func (k *keygen) writeSecret(out io.Writer, secret string) error {
	if k.out == "" {
		_, err := fmt.Fprintln(out, secret)
		return err
	}
	file := newFile{k.out + ".secret", []byte(secret + "\n"), 0o600}
	if err := createAll(file); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, file.name)
	return err
}

func (k *keygen) writePair(out io.Writer, key any) error {
	prefix := k.out
	if prefix == "" {
		prefix = strings.ToLower(k.alg)
	}
	pair, err := encodePair(key)
	if err != nil {
		return err
	}
	files := []newFile{
		{prefix + ".private.pem", pair.private, 0o600},
		{prefix + ".public.pem", pair.public, 0o644},
	}
	if k.jwks {
		set, err := encodeKeySet(pair.key, k.kid, k.alg)
		if err != nil {
			return err
		}
		files = append(files, newFile{prefix + ".jwks.json", set, 0o644})
	}
	if err := createAll(files...); err != nil {
		return err
	}
	for _, file := range files {
		if _, err := fmt.Fprintln(out, file.name); err != nil {
			return err
		}
	}
	return nil
}

// newFile is a file to be made.
type newFile struct {
	name string
	data []byte
	mode fs.FileMode
}

// createAll makes all files or none. A file that exists, or a link, is an error
// and stays as it is.
func createAll(files ...newFile) (err error) {
	var made []string
	defer func() {
		if err == nil {
			return
		}
		for _, name := range made {
			err = errors.Join(err, os.Remove(name))
		}
	}()
	for _, file := range files {
		f, err := os.OpenFile(file.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, file.mode)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s: exists, and no file is overwritten; choose another --out", file.name)
		}
		if err != nil {
			return err
		}
		made = append(made, file.name)
		_, err = f.Write(file.data)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
