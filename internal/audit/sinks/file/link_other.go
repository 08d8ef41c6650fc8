//go:build !unix

package file

// noFollow is not known here. A link is refused when it is there before the file
// is opened.
const noFollow = 0
