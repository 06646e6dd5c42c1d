//go:build race

package index

// raceDetector tells that memory and time are not those of the program as it is used.
const raceDetector = true
