package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/registry"
	"github.com/flatroot/flatroot/oci/sign/signtest"
)

var signatures = oci.AttachmentKind{Suffix: "sig", Types: []string{signtest.Artifact}}

// attachmentsOf lists the digests of what is found, and the errors.
func attachmentsOf(t *testing.T, src oci.AttachmentSource, of ocispec.Descriptor) (found []string, errs []error) {
	t.Helper()
	for a, err := range src.Attachments(context.Background(), of.Digest, signatures) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found = append(found, a.Descriptor.Digest.String())
	}
	return found, errs
}

// TestAttachments finds signatures by tag and among the referrers, in registries that have that API and in others.
func TestAttachments(t *testing.T) {
	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprintf("api=%v", api), func(t *testing.T) {
			log := &requests{Handler: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(api))}
			host := serve(t, log)
			image := sample(t)
			if err := image.Push("http://"+host, "org/app", "v1"); err != nil {
				t.Fatal(err)
			}
			src := open(t, host, "org/app:v1", registry.Options{})
			if found, errs := attachmentsOf(t, src, image.Root()); len(found) > 0 || len(errs) > 0 {
				t.Fatalf("of none there are %q, %v", found, errs)
			}
			signer := signtest.New("P-256")
			tagged := signtest.Image(signer.Of(image.Root().Digest, "a"))
			referrer := signtest.Referrer(image.Root(), signtest.Artifact, signer.Of(image.Root().Digest, "b"))
			other := signtest.Referrer(image.Root(), "application/x-sbom", signer.Of(image.Root().Digest, "c"))
			for _, b := range []*ocitest.Built{referrer, other} {
				if err := b.Push("http://"+host, "org/app", b.Root().Digest.String()); err != nil {
					t.Fatal(err)
				}
			}
			if !api {
				pushReferrersTag(t, host, image.Root(), referrer, other)
			}
			want := []string{referrer.Root().Digest.String()}
			if found, errs := attachmentsOf(t, src, image.Root()); len(errs) > 0 || fmt.Sprint(found) != fmt.Sprint(want) {
				t.Errorf("got %q, %v, want %q", found, errs, want)
			}
			if err := tagged.Push("http://"+host, "org/app", signtest.Tag(image.Root().Digest)); err != nil {
				t.Fatal(err)
			}
			want = []string{tagged.Root().Digest.String(), want[0]}
			if found, errs := attachmentsOf(t, src, image.Root()); len(errs) > 0 || fmt.Sprint(found) != fmt.Sprint(want) {
				t.Errorf("got %q, %v, want %q", found, errs, want)
			}
			// Who has found what he looks for asks for no more.
			log.mu.Lock()
			log.seen = nil
			log.mu.Unlock()
			for range src.Attachments(context.Background(), image.Root().Digest, signatures) {
				break
			}
			log.mu.Lock()
			defer log.mu.Unlock()
			if got := fmt.Sprint(log.seen); got != "[GET /v2/org/app/manifests/"+signtest.Tag(image.Root().Digest)+"]" {
				t.Errorf("asked for %s", got)
			}
		})
	}
}

// pushReferrersTag makes the image index that a registry without the API has to have.
func pushReferrersTag(t *testing.T, host string, of ocispec.Descriptor, list ...*ocitest.Built) {
	t.Helper()
	var items []string
	for _, b := range list {
		d := b.Root()
		items = append(items, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"artifactType":%q}`, d.MediaType, d.Digest, d.Size, b.Blobs[0].Descriptor.MediaType))
	}
	raw := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[` + strings.Join(items, ",") + `]}`
	index := &ocitest.Built{Blobs: []ocitest.Blob{{Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex}, Data: []byte(raw)}}}
	if err := index.Push("http://"+host, "org/app", oci.ReferrersTag(of.Digest)); err != nil {
		t.Fatal(err)
	}
}

// TestAttachmentsOfLiars has a registry lie, refuse, or be too generous.
func TestAttachmentsOfLiars(t *testing.T) {
	image := sample(t)
	of := image.Root()
	good := signtest.Image(signtest.New("P-256").Of(of.Digest, "a"))
	raw := good.Blobs[len(good.Blobs)-1].Data
	entry := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"artifactType":%q}`, ocispec.MediaTypeImageManifest, of.Digest, len(raw), signtest.Artifact)
	list := func(n int) string {
		return `{"schemaVersion":2,"manifests":[` + strings.TrimSuffix(strings.Repeat(entry+",", n), ",") + `]}`
	}
	for _, c := range []struct {
		name, tagged, referrers string // bodies, or a status
		found                   int
		why                     string
	}{
		{"no manifest", "hello", "404", 0, "invalid character"},
		{"an index", list(0), "404", 0, "not a manifest"},
		{"an index in its place", `{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}`, "404", 0, "may disagree"},
		{"refused", "403", "404", 0, "403"},
		{"broken", "500", "500", 0, "500"},
		{"referrers that are none", "404", "<html>", 0, "invalid character"},
		{"a referrer of another digest", "404", list(1), 0, "has digest"},
		{"too many", "404", list(40), 0, "more attachments"},
		{"a large one", strings.Repeat(" ", 5<<20), "404", 0, "longer"},
		{"good", string(raw), "404", 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body := "404"
				switch {
				case r.URL.Path == "/v2/":
					return
				case strings.HasSuffix(r.URL.Path, signtest.Tag(of.Digest)):
					body = c.tagged
				case strings.Contains(r.URL.Path, "/referrers/"):
					body = c.referrers
				case strings.Contains(r.URL.Path, "/manifests/sha256:"):
					body = string(raw)
				}
				if len(body) == 3 {
					var status int
					_, _ = fmt.Sscan(body, &status)
					w.WriteHeader(status)
					return
				}
				_, _ = io.WriteString(w, body)
			}))
			src := open(t, host, "org/app:v1", registry.Options{})
			found, errs := attachmentsOf(t, src, of)
			if len(found) != c.found {
				t.Errorf("found %q", found)
			}
			if c.why == "" {
				if len(errs) > 0 {
					t.Error(errs)
				}
				return
			}
			wantError(t, errors.Join(errs[:min(len(errs), 1)]...), c.why)
			if len(errs) > oci.MaxAttachments+1 {
				t.Errorf("%d errors", len(errs))
			}
		})
	}
}

// TestReferrerPages has lists of referrers in several pages. A page is the number in its address, and has the referrer if it
// is the last that there is.
func TestReferrerPages(t *testing.T) {
	image := sample(t)
	of := image.Root()
	referrer := signtest.Referrer(of, signtest.Artifact, signtest.New("P-256").Of(of.Digest, "a"))
	d, raw := referrer.Root(), referrer.Blobs[len(referrer.Blobs)-1].Data
	entry := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"artifactType":%q}`, d.MediaType, d.Digest, d.Size, signtest.Artifact)
	at := "/v2/org/app/referrers/" + of.Digest.String()
	for name, c := range map[string]struct {
		pages int
		link  string // with the number of the next page
		all   bool   // each page has the referrer
		found int
		asked int
		why   string
	}{
		"one":            {pages: 1, found: 1, asked: 1},
		"three":          {pages: 3, link: "<" + at + "?n=1&last=%d>; rel=\"next\"", found: 1, asked: 3},
		"relative":       {pages: 2, link: "<?last=%d>;rel=next", found: 1, asked: 2},
		"whole address":  {pages: 2, link: "<http://HOST" + at + "?last=%d>; rel=\"next\"", found: 1, asked: 2},
		"among others":   {pages: 2, link: `<http://other.example/a,b>; rel="self", <?last=%d>; title="x"; REL="next"`, found: 1, asked: 2},
		"another rel":    {pages: 2, link: `<?last=%d>; rel="prev"`, asked: 1},
		"no link":        {pages: 2, link: "last=%d; rel=next", asked: 1},
		"another host":   {pages: 2, link: "<http://other.example" + at + "?last=%d>; rel=next", asked: 1, why: "leads elsewhere, to http://other.example/"},
		"no registry's":  {pages: 2, link: "</etc?last=%d>; rel=next", asked: 1, why: "leads elsewhere"},
		"no address":     {pages: 2, link: "<:%d>; rel=next", asked: 1, why: "the link to the next page"},
		"no end":         {pages: 1000, link: "<?last=%d>; rel=next", asked: 32, why: "more than 32 pages"},
		"too many":       {pages: 1000, link: "<?last=%d>; rel=next", all: true, found: 32, asked: 3, why: "more attachments"},
		"many, then one": {pages: 32, link: "<?last=%d>; rel=next", found: 1, asked: 32},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/v2/":
				case r.URL.Path == "/v2/org/app/manifests/"+d.Digest.String():
					w.Header().Set("Content-Type", d.MediaType)
					_, _ = w.Write(raw)
				case r.URL.Path == at:
					asked++
					page := 0
					_, _ = fmt.Sscan(r.URL.Query().Get("last"), &page)
					if page++; page < c.pages {
						link := strings.ReplaceAll(c.link, "HOST", r.Host)
						w.Header().Set("Link", fmt.Sprintf(link, page))
					}
					list := ""
					if c.all {
						list = strings.TrimSuffix(strings.Repeat(entry+",", 15), ",")
					} else if page == c.pages {
						list = entry
					}
					_, _ = io.WriteString(w, `{"schemaVersion":2,"manifests":[`+list+`]}`)
				default:
					w.WriteHeader(http.StatusNotFound)
				}
			}))
			found, errs := attachmentsOf(t, open(t, host, "org/app:v1", registry.Options{}), of)
			if len(found) != c.found || asked != c.asked {
				t.Errorf("found %q, asked %d times; %v", found, asked, errs)
			}
			if c.why != "" {
				wantError(t, errors.Join(errs...), c.why)
			} else if len(errs) > 0 {
				t.Error(errs)
			}
		})
	}
}
