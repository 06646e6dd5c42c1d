package oci

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestParseDockerArchive(t *testing.T) {
	in := `[{"Config":"c.json","RepoTags":["a:1","b:2"],"Layers":["x/layer.tar","y/layer.tar"],"Parent":"","LayerSources":{}},
		{"Config":"d.json","RepoTags":null,"Layers":[]},{"Config":"e.json"}]`
	got, err := ParseDockerArchive([]byte(in))
	want := []ArchivedImage{
		{Config: "c.json", Names: []string{"a:1", "b:2"}, Layers: []string{"x/layer.tar", "y/layer.tar"}},
		{Config: "d.json", Layers: []string{}}, {Config: "e.json"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestParseDockerArchiveErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":                                     "no JSON",
		"{}":                                   "cannot unmarshal",
		"[1]":                                  "image 0: no JSON object",
		`[{"Config":"c"},{}]`:                  "image 1: Config is missing",
		`[{"config":"c"}]`:                     "Config is missing",
		`[{"Config":["c"]}]`:                   "Config: json",
		`[{"Config":"c","Layers":"x"}]`:        "Layers: json",
		`[{"Config":"c","RepoTags":[1]}]`:      "RepoTags: json",
		`[{"Config":"c","Config":"d"}]`:        "stands twice",
		`[{"Config":"c"}] []`:                  "no JSON",
		strings.Repeat("[", 100):               "no JSON",
		strings.Repeat(" ", MaxManifestSize+1): "larger than",
		`[{"Config":"c","Layers":["x"` + strings.Repeat(`,"x"`, maxArchivedLayers) + `]}]`: "4097 layers",
	} {
		if _, err := ParseDockerArchive([]byte(in)); err == nil || !strings.Contains(fmt.Sprint(err), want) && want != "no JSON" {
			t.Errorf("%.60q: got %v, want %q in it", in, err, want)
		}
	}
}

func FuzzParseDockerArchive(f *testing.F) {
	f.Add([]byte(`[{"Config":"c.json","RepoTags":["a:1"],"Layers":["x/layer.tar"]}]`))
	f.Add([]byte(`[{"Config":"c","Layers":null},{"Config":"d"}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		images, err := ParseDockerArchive(raw)
		if err != nil && len(images) > 0 {
			t.Fatal("images beside an error")
		}
		for _, m := range images {
			if m.Config == "" || len(m.Layers) > maxArchivedLayers || len(m.Names)+len(m.Layers) > len(raw) {
				t.Fatalf("got %+v", m)
			}
		}
	})
}
