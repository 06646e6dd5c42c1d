package sign

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/oci"
)

// ParsePolicy reads a policy as strictly as containers do: what is unknown,
// repeated or incomplete makes all of it an error. What is known there and
// can't be checked here is no error, but a requirement that no image meets.
func ParsePolicy(b []byte) (*Policy, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("has %d bytes, more than %d", len(b), maxFile)
	}
	if err := oci.CheckJSON(b); err != nil {
		return nil, err
	}
	var standard json.RawMessage
	var transports map[string]map[string]json.RawMessage
	err := readMembers(b, map[string]any{"default": &standard, "transports": &transports}, "transports")
	if err != nil {
		return nil, err
	}
	p := &Policy{transports: map[string]map[string][]Requirement{}}
	if p.standard, err = parseRequirements(standard); err != nil {
		return nil, fmt.Errorf("default: %w", err)
	}
	for transport, scopes := range transports {
		parsed := map[string][]Requirement{}
		for scope, raw := range scopes {
			if err := checkScope(transport, scope); err != nil {
				return nil, fmt.Errorf("transport %q: scope %q: %w", oci.Printable(transport, 50), oci.Printable(scope, 200), err)
			}
			rs, err := parseRequirements(raw)
			if err != nil {
				return nil, fmt.Errorf("transport %q: scope %q: %w", oci.Printable(transport, 50), oci.Printable(scope, 200), err)
			}
			if transport == string(oci.Docker) {
				scope = lowerHost(scope)
			}
			if _, twice := parsed[scope]; twice {
				return nil, fmt.Errorf("transport %q: scope %q stands there twice", oci.Printable(transport, 50), oci.Printable(scope, 200))
			}
			parsed[scope] = rs
		}
		p.transports[transport] = parsed
	}
	return p, nil
}

// lowerHost writes a registry's name as references have it.
func lowerHost(scope string) string {
	host, rest, slash := strings.Cut(scope, "/")
	if host = strings.ToLower(host); slash {
		host += "/"
	}
	return host + rest
}

// checkScope refuses scopes that could never be found.
func checkScope(transport, scope string) error {
	if scope == "" {
		return nil
	}
	switch oci.Transport(transport) {
	case oci.OCI, oci.OCIArchive, oci.Dir:
		switch {
		case !strings.HasPrefix(scope, "/"):
			return errors.New("it is no absolute path")
		case scope == "/":
			return errors.New(`that of all is written ""`)
		case filepath.Clean(scope) != scope:
			return fmt.Errorf("it has to be written %q", filepath.Clean(scope))
		}
	case oci.DockerArchive:
		return errors.New(`the transport has only the scope ""`)
	}
	return nil
}

// parseRequirements reads an array that is not empty.
func parseRequirements(raw json.RawMessage) ([]Requirement, error) {
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, errors.New("nothing is required: that nothing is has to be said, by insecureAcceptAnything")
	}
	rs := make([]Requirement, len(items))
	for i, item := range items {
		var err error
		if rs[i], err = parseRequirement(item); err != nil {
			return nil, fmt.Errorf("requirement %d: %w", i+1, err)
		}
	}
	return rs, nil
}

// typeOf reads the member by which an object's other members are told.
func typeOf(raw json.RawMessage) (kind string, err error) {
	var o map[string]json.RawMessage
	if err := json.Unmarshal(raw, &o); err != nil {
		return "", err
	}
	if _, ok := o["type"]; !ok {
		return "", errors.New("type is missing")
	}
	return kind, json.Unmarshal(o["type"], &kind)
}

func parseRequirement(raw json.RawMessage) (r Requirement, err error) {
	if r.kind, err = typeOf(raw); err != nil {
		return r, err
	}
	switch r.kind {
	case insecureAcceptAnything, reject:
		return r, readMembers(raw, map[string]any{"type": &r.kind})
	case signedBy:
		return parseSignedBy(raw)
	case sigstoreSigned:
		return parseSigstoreSigned(raw)
	case signedBaseLayer:
		var identity json.RawMessage
		if err := readMembers(raw, map[string]any{"type": &r.kind, "baseLayerIdentity": &identity}); err != nil {
			return r, err
		}
		_, err := parseIdentity(identity)
		r.refusal = "signedBaseLayer is nothing that flatroot can check"
		return r, err
	}
	return r, fmt.Errorf("there is no type %q", oci.Printable(r.kind, 100))
}

// keySources are the members of which one has to be there.
type keySources struct {
	keyPath, rekorPath   string
	keyPaths, rekorPaths []string
	keyData, rekorData   []byte
	keyDatas, rekorDatas [][]byte
	fulcio, pki          json.RawMessage
}

// parseSignedBy reads a requirement of a GPG signature. Policies that come
// with distributions have some, for a vendor's registries; they must not keep
// images from other ones out, and nothing from theirs may come in unchecked.
func parseSignedBy(raw json.RawMessage) (r Requirement, err error) {
	var k keySources
	var keyType string
	var identity json.RawMessage
	err = readMembers(raw, map[string]any{
		"type": &r.kind, "keyType": &keyType, "keyPath": &k.keyPath, "keyPaths": &k.keyPaths, "keyData": &k.keyData,
		"signedIdentity": &identity,
	}, "keyPath", "keyPaths", "keyData", "signedIdentity")
	if err != nil {
		return r, err
	}
	if !slices.Contains([]string{"GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs"}, keyType) {
		return r, fmt.Errorf("keyType: there is no %q", oci.Printable(keyType, 100))
	}
	if err := oneOf(raw, "keyPath", "keyPaths", "keyData"); err != nil {
		return r, err
	}
	if r.identity, err = parseIdentity(identity); err != nil {
		return r, err
	}
	r.refusal = "signedBy asks for a signature by " + keyType + ", which flatroot can't check; sigstoreSigned asks for one by a key of cosign"
	return r, nil
}

func parseSigstoreSigned(raw json.RawMessage) (r Requirement, err error) {
	var k keySources
	var identity json.RawMessage
	members := map[string]any{
		"type": &r.kind, "keyPath": &k.keyPath, "keyPaths": &k.keyPaths, "keyData": &k.keyData, "keyDatas": &k.keyDatas,
		"fulcio": &k.fulcio, "pki": &k.pki, "rekorPublicKeyPath": &k.rekorPath, "rekorPublicKeyPaths": &k.rekorPaths,
		"rekorPublicKeyData": &k.rekorData, "rekorPublicKeyDatas": &k.rekorDatas, "signedIdentity": &identity,
	}
	var optional []string
	for name := range members {
		if name != "type" {
			optional = append(optional, name)
		}
	}
	if err := readMembers(raw, members, optional...); err != nil {
		return r, err
	}
	if err := oneOf(raw, "keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki"); err != nil {
		return r, err
	}
	if r.identity, err = parseIdentity(identity); err != nil {
		return r, err
	}
	switch {
	case k.fulcio != nil || k.pki != nil:
		r.refusal = "the policy asks for a signature by a certificate, which flatroot can't check; pull --verify-command lends it a program that can"
	case k.rekorPath != "" || k.rekorPaths != nil || k.rekorData != nil || k.rekorDatas != nil:
		r.refusal = "the policy asks for an entry in a transparency log, which flatroot can't check; pull --verify-command lends it a program that can"
	}
	return r, r.setKeys(k)
}

// setKeys takes the keys that are in the policy itself, and remembers where
// the others are. One that is not understood is in the way of the images that
// it is for, not of others.
func (r *Requirement) setKeys(k keySources) error {
	if k.keyData != nil {
		k.keyDatas = append(k.keyDatas, k.keyData)
	}
	for _, data := range k.keyDatas {
		key, err := ParseKey(data)
		if err != nil {
			r.refusal = "the policy's public key " + err.Error()
			return nil
		}
		r.keys = append(r.keys, key)
	}
	r.keyPaths = k.keyPaths
	if k.keyPath != "" {
		r.keyPaths = []string{k.keyPath}
	}
	if r.refusal == "" && len(r.keys)+len(r.keyPaths) == 0 {
		return errors.New("there is no key in it")
	}
	return nil
}

// oneOf refuses an object that has none of these members, or several.
func oneOf(raw json.RawMessage, names ...string) error {
	var o map[string]json.RawMessage
	if err := json.Unmarshal(raw, &o); err != nil {
		return err
	}
	n := 0
	for _, name := range names {
		if value, ok := o[name]; ok && string(value) != "null" {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("it has %d of %s: want one", n, strings.Join(names, ", "))
	}
	return nil
}

// parseIdentity reads a signedIdentity; nil stands for what it is by default.
func parseIdentity(raw json.RawMessage) (id Identity, err error) {
	if raw == nil {
		return Identity{rule: matchRepoDigestOrExact}, nil
	}
	if id, err = readIdentity(raw); err != nil {
		return id, fmt.Errorf("identity: %w", err)
	}
	return id, nil
}

func readIdentity(raw json.RawMessage) (id Identity, err error) {
	if id.rule, err = typeOf(raw); err != nil {
		return id, err
	}
	members := map[string]any{"type": &id.rule}
	var text string
	switch id.rule {
	case matchExact, matchRepoDigestOrExact, matchRepository:
	case exactReference:
		members["dockerReference"] = &text
	case exactRepository:
		members["dockerRepository"] = &text
	case remapIdentity:
		members["prefix"], members["signedPrefix"] = &id.prefix, &id.signed
	default:
		return id, fmt.Errorf("there is no type %q", oci.Printable(id.rule, 100))
	}
	if err := readMembers(raw, members); err != nil {
		return id, err
	}
	switch id.rule {
	case exactReference, exactRepository:
		if id.named, err = parseNamed(text); err != nil {
			return id, err
		}
		if id.rule == exactReference && id.named.rest == "" {
			return id, fmt.Errorf("dockerReference %s has neither tag nor digest", id.named)
		}
	case remapIdentity:
		if id.prefix == "" || id.signed == "" {
			return id, errors.New("prefix and signedPrefix must not be empty")
		}
	}
	return id, nil
}
