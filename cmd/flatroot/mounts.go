package main

import (
	"context"
	"io"

	"github.com/flatroot/flatroot/mount"
)

func mountsCommand() *command {
	return &command{
		name:  "mounts",
		usage: "list the mounts of images",
		about: `Lists what flatroot or mount.flatroot mounted in this mount namespace, and what is checked there: IMAGE is kernel, sealed, blocks, once or unchecked, OBJECTS kernel, user or unchecked, as flatroot-mount(1) explains. ACCESS is rw where there is a writable layer.`,
		examples: []example{
			{"where an image is mounted", "flatroot mounts --json | jq -r 'select(.image == \"'$DIGEST'\").target'"},
		},
		run: func(_ context.Context, v *invocation) error { return runMounts(v.console, v.stdout) },
	}
}

// mountLine is a mount in a listing, and what mount reports.
type mountLine struct {
	Target  string            `json:"target"`
	Image   string            `json:"image,omitempty"`
	Mode    mount.Mode        `json:"mode"`
	Checks  mount.ImageCheck  `json:"image_check"`
	Objects mount.ObjectCheck `json:"object_check"`
	Write   bool              `json:"writable"`
	Dirs    []string          `json:"object_dirs,omitempty"`
	Why     []string          `json:"why_not_more,omitempty"`
}

func mountLineOf(m mount.Mount) mountLine {
	l := mountLine{
		Target: m.Target, Mode: m.Mode, Checks: m.Verification.Image, Objects: m.Verification.Objects,
		Write: !m.ReadOnly, Dirs: m.Objects, Why: m.Verification.Why,
	}
	if !m.Digest.IsZero() {
		l.Image = m.Digest.String()
	}
	return l
}

func (l mountLine) row() []string {
	image := "-"
	if l.Image != "" {
		image = short(l.Image)
	}
	access := "ro"
	if l.Write {
		access = "rw"
	}
	return []string{l.Target, image, string(l.Mode), string(l.Checks), string(l.Objects), access}
}

func runMounts(c console, stdout io.Writer) error {
	list, err := mount.List()
	if err != nil {
		return err
	}
	rows := [][]string{{"TARGET", "DIGEST", "MODE", "IMAGE", "OBJECTS", "ACCESS"}}
	for _, m := range list {
		l := mountLineOf(m)
		rows = append(rows, l.row())
		if c.json {
			if err := printJSON(stdout, l); err != nil {
				return err
			}
		}
	}
	if c.json || len(list) == 0 {
		return nil
	}
	return table(stdout, rows)
}
