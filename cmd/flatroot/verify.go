package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/sign"
)

// policyVariable names a policy file, as --policy does.
const policyVariable = "FLATROOT_POLICY"

func verifyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "verify-key", Category: signaturesCategory,
			Usage: "refuse an image without a signature by the public key in `FILE`; given several times, by one of them"},
		&cli.StringFlag{Name: "signed-as", Category: signaturesCategory,
			Usage: "with --verify-key, the signature has to be of the image `HOST/REPOSITORY[:TAG]`; default: of SOURCE's own repository, if it is a registry's"},
		&cli.StringFlag{Name: "policy", Category: signaturesCategory,
			Usage: "ask of images what the policy in `FILE` does; default: the first of those that are named above"},
		&cli.StringFlag{Name: "verify-command", Category: signaturesCategory,
			Usage: "refuse an image unless `COMMAND` ends with status 0, run by the shell; $FLATROOT_IMAGE and others say which it is"},
	}
}

const aboutSignatures = `With --verify-key an image is refused unless there is a signature beside it which that key has made, as cosign sign --key does it: of the manifest, or of the image index by which it was found. So it is where a policy asks for one. What is refused has not a byte of its layers fetched, and gets no name, also if the store has it already.

The policy has the form of containers-policy.json(5), as podman reads it. It is what --policy or $` + policyVariable + ` names, else the first there is of /etc/flatroot/policy.json, $CONTAINERS_POLICY_JSON, $XDG_CONFIG_HOME/containers/policy.json, /etc/containers/policy.json and /usr/share/containers/policy.json. Without any, all images are accepted; one that can't be read or understood has all refused. Of its requirements there are insecureAcceptAnything, reject, and sigstoreSigned by keys; those that flatroot can't check are met by no image.

The command of --verify-command gets, in its environment, FLATROOT_REFERENCE, the SOURCE; FLATROOT_DIGEST, the digest of the manifest or image index that it stands for; FLATROOT_MANIFEST, that of the manifest, or with --platform all of the image index; and FLATROOT_IMAGE, which is HOST/REPOSITORY@DIGEST of a registry's image and else the SOURCE. It is asked last.`

// verifying is what is asked of the signatures of all images that are pulled.
type verifying struct {
	keys     []*sign.Key
	signedAs sign.Identity
	named    bool // signedAs was given
	policy   *sign.Policy
	command  string
}

// verifying reads keys and policy: whatever is wrong with them, nothing is pulled.
func (v *invocation) verifying() (o verifying, err error) {
	o.command = v.String("verify-command")
	if v.IsSet("verify-command") && o.command == "" {
		return o, v.usagef("--verify-command is empty")
	}
	if o.named = v.IsSet("signed-as"); o.named {
		if !v.IsSet("verify-key") {
			return o, v.usagef("--signed-as goes with --verify-key")
		}
		if o.signedAs, err = sign.SignedAs(v.String("signed-as")); err != nil {
			return o, v.usagef("--signed-as: %v", err)
		}
	}
	for _, file := range v.StringSlice("verify-key") {
		if abs, err := filepath.Abs(file); err == nil { // as it is remembered
			file = abs
		}
		k, err := sign.ReadKey(file)
		if err != nil {
			return o, err
		}
		o.keys = append(o.keys, k)
	}
	file := v.String("policy")
	if file == "" && v.IsSet("policy") {
		return o, v.usagef("--policy is empty")
	}
	if file = cmp.Or(file, policyFile(ownPolicy, os.Getenv)); file != "" {
		o.policy, err = sign.ReadPolicy(file)
	}
	return o, err
}

// ownPolicy is the policy for flatroot alone.
const ownPolicy = "/etc/flatroot/policy.json"

// policyFile is where the policy is, if no flag names one: of flatroot's own, own is that of the system, or where containers
// look. One that the environment names has to be there.
func policyFile(own string, getenv func(string) string) string {
	config := getenv("XDG_CONFIG_HOME")
	if home := getenv("HOME"); !filepath.IsAbs(config) && filepath.IsAbs(home) {
		config = filepath.Join(home, ".config")
	}
	list := []string{"/etc/containers/policy.json", "/usr/share/containers/policy.json"}
	if filepath.IsAbs(config) {
		list = append([]string{filepath.Join(config, "containers/policy.json")}, list...)
	}
	return cmp.Or(getenv(policyVariable), firstThere([]string{own}), getenv("CONTAINERS_POLICY_JSON"), firstThere(list))
}

// firstThere is the first of these files that is there, or of which that can't be told, which reading it will; "" if none is.
func firstThere(files []string) string {
	for _, file := range files {
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return file
		}
	}
	return ""
}

// accept is what decides about one image; nil, if nothing is asked.
func (o *verifying) accept(c console, ref oci.Reference, src oci.Source) index.Accept {
	if len(o.keys) == 0 && (o.policy == nil || o.policy.Accepts(ref)) && o.command == "" {
		return nil
	}
	return func(ctx context.Context, r index.Resolved) ([]index.Signature, error) {
		accepted, err := o.check(ctx, &sign.Subject{Reference: ref, Source: src, Root: r.Root, Manifest: r.Manifest})
		if err != nil {
			return nil, err
		}
		if err := o.run(ctx, c, ref, r); err != nil {
			return nil, err
		}
		now := time.Now().UTC().Truncate(time.Second)
		list := make([]index.Signature, len(accepted))
		for i, a := range accepted {
			list[i] = index.Signature{
				Signed: a.Signed, Reference: oci.Printable(a.Reference, 512), Key: a.Key.Fingerprint, KeyFile: a.Key.File,
				Payload: a.Payload, Signature: a.Signature, Time: now,
			}
		}
		return list, nil
	}
}

// check asks what keys and policy ask for, both.
func (o *verifying) check(ctx context.Context, s *sign.Subject) (accepted []*sign.Accepted, err error) {
	if o.policy != nil {
		if accepted, err = o.policy.Check(ctx, s); err != nil {
			return nil, err
		}
	}
	if len(o.keys) == 0 {
		return accepted, nil
	}
	id := o.signedAs
	if !o.named {
		id = sign.SameRepository()
	}
	required := sign.SignedBy(o.keys, id)
	a, err := required.Check(ctx, s)
	if err != nil {
		return nil, err
	}
	return append(accepted, a), nil
}

// run asks the command.
func (o *verifying) run(ctx context.Context, c console, ref oci.Reference, r index.Resolved) error {
	if o.command == "" {
		return nil
	}
	image := ref.String()
	if ref.Transport == oci.Docker {
		image = ref.Host + "/" + ref.Repository + "@" + r.Root.String()
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", o.command)
	cmd.Env = append(os.Environ(), "FLATROOT_REFERENCE="+ref.String(), "FLATROOT_IMAGE="+image,
		"FLATROOT_DIGEST="+r.Root.String(), "FLATROOT_MANIFEST="+r.Manifest.String())
	cmd.Stdout, cmd.Stderr = c.stderr, c.stderr
	cmd.WaitDelay = time.Second // for what it has left running with our standard error
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %s is not accepted by --verify-command: %w", ref, r.Manifest, cmp.Or(context.Cause(ctx), err))
	}
	return nil
}
