package sign_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/sign"
	"github.com/flatroot/flatroot/oci/sign/signtest"
)

// TestKinds has each kind of key sign, by itself and in a bundle.
func TestKinds(t *testing.T) {
	for _, kind := range signtest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			s, other := signtest.New(kind), signtest.New(kind)
			for _, sig := range []signtest.Signature{s.Of(manifest, app), s.Bundle(manifest, "https://sigstore.dev/cosign/sign/v1")} {
				src := newBeside().attach(manifest, signtest.Image(sig))
				r := sign.SignedBy([]*sign.Key{keyOf(t, other), keyOf(t, s)}, sign.SameRepository())
				a, err := r.Check(context.Background(), subject(t, src))
				if err != nil {
					t.Fatal(err)
				}
				if a.Signed != manifest || a.Key.Fingerprint != keyOf(t, s).Fingerprint || !a.Key.Verify(a.Payload, a.Signature) {
					t.Errorf("got %+v", a)
				}
				r = sign.SignedBy([]*sign.Key{keyOf(t, other)}, sign.SameRepository())
				_, err = r.Check(context.Background(), subject(t, src))
				wantRefusal(t, err, "not made by a key that is trusted")
			}
		})
	}
}

// TestGolden verifies what cosign and skopeo have signed.
func TestGolden(t *testing.T) {
	for _, name := range []string{"p256.sig", "p384.sig", "p521.sig", "ed25519.sig", "rsa.sig", "skopeo.sig",
		"p256.bundle", "p384.bundle", "p521.bundle", "ed25519.bundle", "rsa.bundle"} {
		t.Run(name, func(t *testing.T) {
			kind, form, _ := strings.Cut(name, ".")
			read := func(file string) []byte {
				b, err := os.ReadFile(filepath.Join("testdata/cosign", file))
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			raw, payload := read(name+".manifest.json"), read(name+".payload")
			b := &ocitest.Built{Blobs: []ocitest.Blob{
				{Descriptor: ocispec.Descriptor{Digest: digest.FromBytes(payload)}, Data: payload},
				{Descriptor: ocispec.Descriptor{Digest: digest.FromBytes(raw), Size: int64(len(raw))}, Data: raw},
			}}
			key, err := sign.ReadKey(filepath.Join("testdata/cosign", kind+".pub"))
			if err != nil {
				t.Fatal(err)
			}
			r := sign.SignedBy([]*sign.Key{key}, sign.SameRepository())
			a, err := r.Check(context.Background(), subject(t, newBeside().attach(manifest, b)))
			if err != nil {
				t.Fatal(err)
			}
			if form == "sig" && !strings.HasPrefix(a.Reference, app) {
				t.Errorf("signed as %q", a.Reference)
			}
			// A byte of what was signed, or of the signature, is another. Not each is tried, as P-521 takes a while.
			for i := 0; i < len(a.Payload); i += len(a.Payload)/5 + 1 {
				if a.Key.Verify(flip(a.Payload, i), a.Signature) {
					t.Errorf("byte %d of the payload does not matter", i)
				}
			}
			for i := 0; i < len(a.Signature); i += len(a.Signature)/5 + 1 {
				if a.Key.Verify(a.Payload, flip(a.Signature, i)) {
					t.Errorf("byte %d of the signature does not matter", i)
				}
			}
		})
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

// TestIndexOrManifest accepts a signature of what the reference stands for, and of what it leads to, and of nothing else.
func TestIndexOrManifest(t *testing.T) {
	s := signtest.New("P-256")
	r := sign.SignedBy([]*sign.Key{keyOf(t, s)}, sign.SameRepository())
	for _, signed := range []digest.Digest{index, manifest} {
		sub := subject(t, newBeside().attach(signed, signtest.Image(s.Of(signed, app))))
		sub.Root = index
		if a, err := r.Check(context.Background(), sub); err != nil || a.Signed != signed {
			t.Errorf("signed %s: %v, %v", signed, a, err)
		}
	}
	// Where the reference led to the manifest at once, the index is nothing to it.
	_, err := r.Check(context.Background(), subject(t, newBeside().attach(manifest, signtest.Image(s.Of(index, app)))))
	wantRefusal(t, err, "of another image")
}

// TestTampered has signatures that must not be accepted, and says why they are not.
func TestTampered(t *testing.T) {
	s, other := signtest.New("P-256"), signtest.New("P-256")
	signed := func(payload string) signtest.Signature {
		return signtest.Signature{Payload: []byte(payload), Signature: s.Sign([]byte(payload))}
	}
	good := string(signtest.Payload(manifest, app))
	edited := func(old, with string) signtest.Signature { return signed(strings.Replace(good, old, with, 1)) }
	lies := func(edit func(*ocispec.Descriptor)) signtest.Signature {
		sig := s.Of(manifest, app)
		sig.Edit = edit
		return sig
	}
	annotated := func(text string) signtest.Signature {
		return lies(func(d *ocispec.Descriptor) { d.Annotations[signtest.Annotation] = text })
	}
	swapped := s.Of(manifest, app)
	swapped.Payload = signtest.Payload(manifest, app+"/x")
	for _, c := range []struct {
		name, why string
		sig       signtest.Signature
	}{
		{"another key", "not made by a key", other.Of(manifest, app)},
		{"another image", "of another image", s.Of(stranger, app)},
		{"another repository", "signed as registry.example.com/org/other", s.Of(manifest, "registry.example.com/org/other")},
		{"a longer repository", "signed as", s.Of(manifest, app+"/sub")},
		{"no reference", "no reference", s.Of(manifest, "")},
		{"a reference that is none", "no reference", s.Of(manifest, "\x1b[2J!")},
		{"a huge reference", "no reference", s.Of(manifest, strings.Repeat("a/", 20000)+"a")},
		{"a payload that was not signed", "not made by a key", swapped},
		{"no signature", "not made by a key", annotated("")},
		{"no annotation", "is missing", lies(func(d *ocispec.Descriptor) { d.Annotations = nil })},
		{"base64 cut off", "illegal base64", annotated("MEUCIQ=")},
		{"base64 with a line end", "not made by a key", annotated("MEUC\nIQDP")},
		{"no base64", "illegal base64", annotated("\x00\x1b!")},
		{"a payload of another digest", "no such blob", lies(func(d *ocispec.Descriptor) { d.Digest = stranger })},
		{"a size too small", "longer than", lies(func(d *ocispec.Descriptor) { d.Size-- })},
		{"a size too large", "its descriptor says 245", lies(func(d *ocispec.Descriptor) { d.Size++ })},
		{"a huge payload", "more than 65536", lies(func(d *ocispec.Descriptor) { d.Size = 1 << 40 })},
		{"another kind of layer", "no signature", lies(func(d *ocispec.Descriptor) { d.MediaType = ocispec.MediaTypeImageLayer })},
		{"GPG's type", "critical.type", edited("cosign container", "atomic container")},
		{"no type", "type is missing", edited(`,"type":"cosign container image signature"`, "")},
		{"a critical member more", "no member", edited(`"critical":{`, `"critical":{"until":1,`)},
		{"a member more", "no member", edited(`"optional"`, `"other":1,"optional"`)},
		{"a critical member twice", "twice", edited(`"image":{`, `"image":{"docker-manifest-digest":"`+string(stranger)+`",`)},
		{"another case", "no member", edited(`"docker-manifest-digest"`, `"Docker-manifest-digest"`)},
		{"a digest of another kind", "not sha256", edited("sha256:", "sha512:")},
		{"no object", "payload", signed("[]")},
		{"nothing", "payload", signed("")},
		{"null", "null", signed("null")},
		{"deep", "nests deeper", signed(strings.Repeat(`{"critical":`, 100) + "1" + strings.Repeat("}", 100))},
		{"a bundle of another key", "not made by a key", other.Bundle(manifest, "https://sigstore.dev/cosign/sign/v1")},
		{"a bundle of another image", "of another image", s.Bundle(stranger, "https://sigstore.dev/cosign/sign/v1")},
		{"a bundle about its parts", "says something else", s.Bundle(manifest, "https://spdx.dev/Document")},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := sign.SignedBy([]*sign.Key{keyOf(t, s)}, sign.SameRepository())
			_, err := r.Check(context.Background(), subject(t, newBeside().attach(manifest, signtest.Image(c.sig))))
			wantRefusal(t, err, c.why)
			// One that is good beside it is enough.
			for _, list := range [][]signtest.Signature{{c.sig, s.Of(manifest, app)}, {s.Of(manifest, app), c.sig}} {
				if _, err := r.Check(context.Background(), subject(t, newBeside().attach(manifest, signtest.Image(list...)))); err != nil {
					t.Errorf("with a good one: %v", err)
				}
			}
			two := newBeside().attach(manifest, signtest.Image(c.sig), signtest.Image(s.Of(manifest, app)))
			if _, err := r.Check(context.Background(), subject(t, two)); err != nil {
				t.Errorf("with another image of signatures: %v", err)
			}
		})
	}
}

// TestBundles has envelopes that are not what they should be.
func TestBundles(t *testing.T) {
	s := signtest.New("P-256")
	good := s.Bundle(manifest, "https://sigstore.dev/cosign/sign/v1")
	edited := func(old, with string) []byte {
		out := bytes.Replace(good.Payload, []byte(old), []byte(with), 1)
		if bytes.Equal(out, good.Payload) {
			t.Fatalf("no %s in it", old)
		}
		return out
	}
	for why, raw := range map[string][]byte{
		"dsseEnvelope is missing":     edited(`"dsseEnvelope"`, `"messageSignature"`),
		"payload is of type":          edited("in-toto+json", "in-toto+jsox"),
		"has 0 signatures":            edited(`"signatures":[`, `"signatures":[],"x":[`),
		"sig is missing":              edited(`"sig"`, `"signature"`),
		"twice":                       edited(`"mediaType"`, `"dsseEnvelope"`),
		"illegal base64":              edited(`"payload":"`, `"payload":"!`),
		"payload is missing":          edited(`"payload"`, `"Payload"`),
		"bundle: unexpected end":      good.Payload[:len(good.Payload)-1],
		"bundle has 65537 bytes":      append(bytes.Clone(good.Payload), bytes.Repeat([]byte(" "), 65537-len(good.Payload))...),
		"not made by a key that is t": edited(`"payload":"`, `"payload":"eyJ9"  ,"y":"`),
	} {
		b, err := sign.ParseBundle(raw)
		if err == nil && strings.HasPrefix(why, "not made") && !keyOf(t, s).Verify(b.Signed, b.Signature) {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("got %v, want %q", err, why)
		}
	}
}

func TestMissing(t *testing.T) {
	r := sign.SignedBy([]*sign.Key{keyOf(t, signtest.New("P-256"))}, sign.SameRepository())
	_, err := r.Check(context.Background(), subject(t, newBeside()))
	wantRefusal(t, err, "it has no signature", string(manifest), app)

	sub := subject(t, newBeside())
	sub.Source = struct{ oci.Source }{}
	_, err = r.Check(context.Background(), sub)
	wantRefusal(t, err, "signatures can't be found")
}

// TestMany bounds how many signatures are looked at, and what is said of them. The same payload is fetched once.
func TestMany(t *testing.T) {
	s, other := signtest.New("P-256"), signtest.New("P-256")
	list := make([]signtest.Signature, 256)
	for i := range list {
		list[i] = other.Of(manifest, fmt.Sprintf("%s:v%d", app, i%10))
	}
	r := sign.SignedBy([]*sign.Key{keyOf(t, s)}, sign.SameRepository())
	src := newBeside().attach(manifest, signtest.Image(list...))
	_, err := r.Check(context.Background(), subject(t, src))
	wantRefusal(t, err, "no good signature", "and 252 more")
	if src.fetched != 10 {
		t.Errorf("%d payloads were fetched", src.fetched)
	}
	_, err = r.Check(context.Background(), subject(t, newBeside().attach(manifest, signtest.Image(append(list, s.Of(manifest, app))...))))
	wantRefusal(t, err, "none of the first 256")
	list[255] = s.Of(manifest, app)
	if _, err = r.Check(context.Background(), subject(t, newBeside().attach(manifest, signtest.Image(list...)))); err != nil {
		t.Error(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err = r.Check(ctx, subject(t, newBeside().attach(manifest, signtest.Image(list...)))); err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

func TestKeys(t *testing.T) {
	good := string(signtest.New("P-256").PEM)
	for _, c := range []struct{ name, pem, why string }{
		{"nothing", "", "no public key in PEM"},
		{"no PEM", "hello", "no public key in PEM"},
		{"two keys", good + good, "more than one"},
		{"private", strings.ReplaceAll(good, "PUBLIC", "ENCRYPTED SIGSTORE PRIVATE"), "is a private key"},
		{"a certificate", strings.ReplaceAll(good, "PUBLIC KEY", "CERTIFICATE"), "CERTIFICATE"},
		{"cut off", "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n", "asn1"},
		{"a weak curve", string(signtest.New("P-224").PEM), "P-224"},
		{"huge", good + strings.Repeat("\n", 1<<20), "more than a public key"},
	} {
		if k, err := sign.ParseKey([]byte(c.pem)); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: got %v, %v", c.name, k, err)
		}
	}
	if _, err := sign.ReadKey(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a directory: %v", err)
	}
}

func FuzzPayload(f *testing.F) {
	f.Add(signtest.Payload(manifest, app))
	f.Add([]byte(`{"critical":{"type":"cosign container image signature"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := sign.ParsePayload(b)
		if err != nil {
			return
		}
		if oci.CheckDigest(p.Digest) != nil {
			t.Errorf("digest %q", p.Digest)
		}
		var o struct {
			Critical struct {
				Image    map[string]string
				Identity map[string]string
			}
		}
		if err := json.Unmarshal(b, &o); err != nil {
			t.Fatal(err)
		}
		if o.Critical.Image["docker-manifest-digest"] != string(p.Digest) || o.Critical.Identity["docker-reference"] != p.Reference {
			t.Errorf("another reader sees %+v, not %+v", o, p)
		}
	})
}

func FuzzBundle(f *testing.F) {
	s := signtest.New("Ed25519")
	f.Add(s.Bundle(manifest, "https://sigstore.dev/cosign/sign/v1").Payload)
	key, err := sign.ParseKey(s.PEM)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		sig := signtest.Signature{Payload: raw, Bundle: true}
		r := sign.SignedBy([]*sign.Key{key}, sign.SameRepository())
		a, err := r.Check(context.Background(), subject(t, newBeside().attach(manifest, signtest.Image(sig))))
		if err == nil && !bytes.Contains(a.Payload, []byte(manifest.Encoded())) {
			t.Errorf("accepted %q", a.Payload)
		}
	})
}

// mirrored is a source of which the first place gives all blobs wrong.
type mirrored struct {
	*beside
	places int // that are left
	wrong  int // blobs that were given so
}

func (s *mirrored) OpenBlob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if s.wrong++; s.wrong == 1 {
		return io.NopCloser(strings.NewReader(strings.Repeat("x", int(d.Size)))), nil
	}
	return s.beside.OpenBlob(ctx, d)
}

func (s *mirrored) OpenBlobFrom(ctx context.Context, d ocispec.Descriptor, _ int64) (io.ReadCloser, error) {
	return s.OpenBlob(ctx, d)
}

func (s *mirrored) Distrust(ocispec.Descriptor, error) bool {
	s.places--
	return s.places > 0
}

// TestWrongPayload asks somebody else for a payload that a mirror gives wrong, if there is anybody.
func TestWrongPayload(t *testing.T) {
	s := signtest.New("P-256")
	r := sign.SignedBy([]*sign.Key{keyOf(t, s)}, sign.SameRepository())
	for _, places := range []int{1, 2} {
		src := &mirrored{beside: newBeside().attach(manifest, signtest.Image(s.Of(manifest, app))), places: places}
		_, err := r.Check(context.Background(), subject(t, src))
		if places == 1 {
			wantRefusal(t, err, "payload has digest")
		} else if err != nil {
			t.Error(err)
		}
	}
}
