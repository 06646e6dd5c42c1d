package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

func inspectCommand() *command {
	return &command{
		name: "inspect", args: "NAME", min: 1, max: 1,
		usage: "show all that the store knows of an image",
		about: `Shows an image's digests, rules and format, its layers, what is verified, and with --json its manifest and config too.

VERITY tells whether the kernel checks the EROFS image and, since all objects of a store are treated alike, the objects: it is the image file's fs-verity digest, if the file has one. The digests of layers, objects and image were computed here when they were imported, whatever it says.

If NAME is an image index, which pull --platform all has stored, that is shown with the image for this machine, or the one for --platform.

SIGNED is what pull has noted of signatures that it verified, as --verify-key or a policy asked for: what the signer called the image, when that was, and the fingerprint of the key, the SHA-256 of its DER. It is no proof: who can write to the store can write the note.`,
		flags: []cli.Flag{ofIndexFlag()},
		examples: []example{
			{"an image at a glance", "flatroot inspect web"},
			{"the command that a container of it would run", "flatroot inspect web --json | jq .config_json.config.Cmd"},
		},
		run: func(_ context.Context, v *invocation) error {
			platform, err := v.platform()
			if err != nil {
				return err
			}
			return runInspect(v.console, v.Args().First(), platform, v.stdout)
		},
	}
}

// inspection is all about one image.
type inspection struct {
	imageLine
	Format     int             `json:"format"`
	Inodes     uint64          `json:"inodes"`
	Verity     bool            `json:"verity"` // the image file has fs-verity, and the digest is right
	LayerList  []layerLine     `json:"layer_list"`
	Manifest   json.RawMessage `json:"manifest_json,omitempty"`
	ConfigJSON json.RawMessage `json:"config_json,omitempty"`
	// Signatures are those that were verified when the image was pulled, as the store has noted them.
	Signatures []index.Signature `json:"signatures,omitempty"`
}

func runInspect(c console, name string, p oci.Platform, stdout io.Writer) error {
	s, err := c.readStore()
	if err != nil {
		return err
	}
	defer s.Close()
	i, err := index.FindFor(s, name, p)
	if err != nil {
		return err
	}
	n, err := inspect(s, i)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(stdout, n)
	}
	return n.print(stdout)
}

func inspect(s *store.Store, i *index.Info) (*inspection, error) {
	line, err := listImage(s, i)
	if err != nil {
		return nil, err
	}
	n := &inspection{imageLine: line, LayerList: []layerLine{}, Manifest: i.ManifestRaw, ConfigJSON: i.ConfigRaw}
	for _, l := range i.Layers {
		n.LayerList = append(n.LayerList, layerLineOf(l, i.Name))
	}
	if i.Manifest != "" {
		if n.Signatures, err = index.Signatures(s, i.Manifest); err != nil {
			return nil, err
		}
	}
	f, err := openStored(s, i.Image)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	img, err := erofs.Open(f, i.ImageBytes)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Image, err)
	}
	n.Format, n.Inodes = img.Version(), img.Inodes()
	measured, err := fsverity.Measure(f)
	switch {
	case err == nil && measured != i.Image:
		return nil, &store.MismatchError{Want: i.Image, Got: measured}
	case err != nil && !errors.Is(err, fsverity.ErrNoVerity) && !errors.Is(err, fsverity.ErrNotSupported):
		return nil, err
	}
	n.Verity = err == nil
	return n, nil
}

// print prints a line for each fact, and one for each layer.
func (n *inspection) print(w io.Writer) error {
	var b strings.Builder
	fact := func(name string, value any) { fmt.Fprintf(&b, "%-9s %s\n", name+":", oneLine(fmt.Sprint(value))) }
	fact("name", n.Name)
	if n.Index != "" {
		fact("index", n.Index)
		fact("platform", n.Platform)
		if others := n.otherPlatforms(); len(others) > 0 {
			fact("others", strings.Join(others, ", "))
		}
	}
	fact("image", fmt.Sprintf("%s (%s)", n.Image, n.Algorithm))
	fact("format", fmt.Sprintf("%d, %s, %d inodes", n.Format, size(n.ImageBytes), n.Inodes))
	fact("verity", n.verityText())
	if n.imageLine.Manifest == "" {
		fact("made of", "a dump: it has no layers")
	} else {
		fact("rules", n.Rules)
		fact("manifest", n.imageLine.Manifest)
		fact("config", n.Config)
		for _, s := range n.Signatures {
			fact("signed", signedText(s))
		}
		fact("layers", n.Layers)
	}
	for i, l := range n.LayerList {
		fmt.Fprintf(&b, "  %2d %s, %s as a tar, %s\n", i+1, l.DiffID, size(l.TarBytes), counted(l.Objects, "object"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// otherPlatforms are those of the image index for which another image is.
func (n *inspection) otherPlatforms() (others []string) {
	for _, p := range n.Platforms {
		if p.Manifest != n.imageLine.Manifest {
			others = append(others, p.Platform)
		}
	}
	return others
}

// signedText says by which key, what the signer called the image, and when that was verified.
func signedText(s index.Signature) string {
	text := "by " + s.Key.String()
	if s.Reference != "" {
		text += " as " + s.Reference
	}
	return text + ", verified " + s.Time.Format(time.RFC3339)
}

func (n *inspection) verityText() string {
	if n.Verity {
		return "the kernel checks the image file (fs-verity)"
	}
	return "the image file has no fs-verity"
}
