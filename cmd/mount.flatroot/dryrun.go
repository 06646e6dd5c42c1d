package main

import (
	"encoding/json"
	"io"

	"github.com/flatroot/flatroot/mount"
)

// printPlan is all that -f does besides making the plan.
func (c *command) printPlan(p *mount.Plan, stdout io.Writer) error {
	if !c.json {
		return nil
	}
	e := json.NewEncoder(stdout)
	e.SetEscapeHTML(false)
	return e.Encode(p)
}
