package command

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// emptyFlag returns what is wrong with a flag that was given without a value. It
// comes from a variable that is not set, and left alone it would make another
// question of the one that was asked: about a stranger, about the Caddyfile that
// happens to be here, or about a token without keys.
func emptyFlag(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		if list, ok := f.Value.(pflag.SliceValue); ok {
			value = strings.Join(list.GetSlice(), "")
		}
		if err == nil && strings.TrimSpace(value) == "" {
			err = fmt.Errorf("--%s: is empty", f.Name)
		}
	})
	return err
}
