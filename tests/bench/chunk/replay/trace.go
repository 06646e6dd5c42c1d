package replay

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Trace is a recorded history of an image's components.
type Trace struct {
	About      string // where it comes from
	End        time.Time
	Components []Component // by name
}

// Component of a trace: what was built from one source package.
type Component struct {
	Name    string
	Size    int64       // bytes, as when it was recorded; a trace knows no other
	Changes []time.Time // days, oldest first, each once
}

// traceFile is how a trace is written: JSON in gzip.
type traceFile struct {
	About      string                   `json:"about"`
	End        string                   `json:"end"`
	Components map[string]fileComponent `json:"components"`
}

type fileComponent struct {
	Size    int64    `json:"size"`
	Changes []string `json:"changes"`
}

// ReadTrace reads a file that WriteTrace has written.
func ReadTrace(name string) (*Trace, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, err := parseTrace(f)
	if err != nil {
		return nil, fmt.Errorf("read trace %s: %w", name, err)
	}
	return t, nil
}

func parseTrace(r io.Reader) (*Trace, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	var f traceFile
	if err := json.NewDecoder(z).Decode(&f); err != nil {
		return nil, err
	}
	t := &Trace{About: f.About}
	if t.End, err = time.Parse(time.DateOnly, f.End); err != nil {
		return nil, err
	}
	for name, c := range f.Components {
		x := Component{Name: name, Size: c.Size}
		for _, d := range c.Changes {
			at, err := time.Parse(time.DateOnly, d)
			if err != nil {
				return nil, fmt.Errorf("component %s: %w", name, err)
			}
			x.Changes = append(x.Changes, at)
		}
		t.Components = append(t.Components, x.until(t.End))
	}
	slices.SortFunc(t.Components, func(a, b Component) int { return strings.Compare(a.Name, b.Name) })
	return t, nil
}

// until brings changes into the order that is promised, without those after the end of a trace.
func (c Component) until(end time.Time) Component {
	slices.SortFunc(c.Changes, time.Time.Compare)
	c.Changes = slices.CompactFunc(c.Changes, time.Time.Equal)
	n, _ := slices.BinarySearchFunc(c.Changes, end.Add(1), time.Time.Compare)
	c.Changes = c.Changes[:n]
	return c
}

// WriteTrace writes a trace, in the same bytes each time.
func WriteTrace(w io.Writer, t *Trace) error {
	f := traceFile{About: t.About, End: t.End.Format(time.DateOnly), Components: map[string]fileComponent{}}
	for _, c := range t.Components {
		x := fileComponent{Size: c.Size, Changes: []string{}}
		for _, d := range c.until(t.End).Changes {
			x.Changes = append(x.Changes, d.Format(time.DateOnly))
		}
		f.Components[c.Name] = x
	}
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(b); err != nil {
		return err
	}
	return z.Close()
}
