//go:build race

package audit_test

// raceAllocs is what the race detector adds to a call that reads randomness.
const raceAllocs = 1
