package main

import (
	"io"

	"github.com/flatroot/flatroot/mount"
)

// printPlan is all that -f does besides making the plan.
func (c *command) printPlan(p *mount.Plan, stdout io.Writer) error {
	if !c.json {
		return nil
	}
	_, err := io.WriteString(stdout, p.String())
	return err
}
