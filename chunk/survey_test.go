package chunk

import (
	"encoding/json"
	"testing"

	"github.com/flatroot/flatroot/oci"
)

func TestNewSurvey(t *testing.T) {
	for _, tc := range []struct{ name, config, key, first, want string }{
		{"nothing", `{}`, "x", "y", `{"compressed_size":9,"layers":[{"compressed_size":4},{"compressed_size":5}]}`},
		{"a history", `{"history":[{"created_by":"a"},{"created_by":"env","empty_layer":true},{"created_by":"b","comment":"c"}]}`, "", "",
			`{"compressed_size":9,"layers":[{"compressed_size":4,"history":"a"},{"compressed_size":5,"history":"c"}]}`},
		{"that of other layers", `{"history":[{"created_by":"a"}]}`, "", "",
			`{"compressed_size":9,"layers":[{"compressed_size":4},{"compressed_size":5}]}`},
		{"chunkah", `{}`, chunkahAnnotation, "rpm/a bigfiles/usr/x",
			`{"tool":"chunkah","compressed_size":9,"layers":[{"compressed_size":4,"components":["rpm/a","bigfiles/usr/x"]},{"compressed_size":5}]}`},
		{"rpm-ostree", `{}`, ostreeAnnotation, "a,b",
			`{"tool":"rpm-ostree","compressed_size":9,"layers":[{"compressed_size":4,"components":["rpm/a","rpm/b"]},{"compressed_size":5}]}`},
		{"a component twice", `{}`, ostreeAnnotation, "a,a",
			`{"tool":"rpm-ostree","compressed_size":9,"layers":[{"compressed_size":4,"components":["rpm/a","rpm/a"]},{"compressed_size":5}]}`},
		{"rechunk", `{"config":{"Labels":{"` + rechunkLabel + `":"{\"layers\":[[\"dedi:a\"],[\"b\",\"c\"]]}"}}}`, "", "",
			`{"tool":"rechunk","compressed_size":9,"layers":[{"compressed_size":4},{"compressed_size":5}],"groups":[["rpm/a"],["rpm/b","rpm/c"]]}`},
		{"rechunk, damaged", `{"config":{"Labels":{"` + rechunkLabel + `":"{"}}}`, "", "",
			`{"compressed_size":9,"layers":[{"compressed_size":4},{"compressed_size":5}]}`},
	} {
		ds := annotated(tc.key, tc.first)
		img := &oci.Image{Config: []byte(tc.config)}
		for n, d := range ds {
			d.Size = int64(4 + n)
			img.Layers = append(img.Layers, oci.Layer{Descriptor: d})
		}
		s, err := NewSurvey(img)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if got, err := json.Marshal(s); err != nil || string(got) != tc.want {
			t.Errorf("%s: %s, %v\nwant %s", tc.name, got, err, tc.want)
		}
	}
	if _, err := NewSurvey(&oci.Image{Config: []byte(`{"history":1}`)}); err == nil {
		t.Error("a history that is none: no error")
	}
}

// FuzzSurvey: whatever an image says of its layers, there is one of the survey for each, and what is said can be printed.
func FuzzSurvey(f *testing.F) {
	f.Add(`{"history":[{"created_by":"a"},{"comment":"b"},{"empty_layer":true}]}`, "rpm/a b", "a,b")
	f.Add(`{"config":{"Labels":{"`+rechunkLabel+`":"{\"layers\":[[\"dedi:a\"],[\"b\",\"c\"]]}"}}}`, "", "null")
	f.Fuzz(func(t *testing.T, config, chunkah, ostree string) {
		img := &oci.Image{Config: []byte(config), Layers: make([]oci.Layer, 2)}
		img.Layers[0].Descriptor.Annotations = map[string]string{chunkahAnnotation: chunkah}
		img.Layers[1].Descriptor.Annotations = map[string]string{ostreeAnnotation: ostree}
		s, err := NewSurvey(img)
		if err != nil {
			return
		}
		if _, err := json.Marshal(s); err != nil || len(s.Layers) != 2 {
			t.Errorf("%d layers, %v", len(s.Layers), err)
		}
	})
}
