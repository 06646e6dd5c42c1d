//go:build amd64

package crash

import (
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"

	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/tests/crash/kit"
)

// online is a registry in this process that has the images of the layout.
var online struct {
	*ocitest.Faults
	url  string
	base ocitest.Blob // of a layer, that is kept while it comes
}

// serveImages starts the registry. The programs that are tested are to ask nobody else.
func serveImages() (stop func(), err error) {
	if err := os.Setenv("CONTAINERS_REGISTRIES_CONF", os.DevNull); err != nil {
		return nil, err
	}
	online.Faults = &ocitest.Faults{Registry: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))}
	srv := httptest.NewServer(online)
	online.url = srv.URL
	online.base, err = kit.Push(srv.URL, "crash", "crash")
	return srv.Close, err
}

// partial is what is kept of the layer's blob in a ground's store.
func (g ground) partial() string {
	return filepath.Join(g.store(), "flatroot/partial", online.base.Descriptor.Digest.String())
}

// leaveHalf leaves half of the blob there, as a pull does that was killed.
func (g ground) leaveHalf() error {
	if err := os.Mkdir(filepath.Dir(g.partial()), 0o755); err != nil {
		return err
	}
	return os.WriteFile(g.partial(), online.base.Data[:len(online.base.Data)/2], 0o644)
}

// wentOn looks whether the one request for the blob since the last was for its other half.
func wentOn() error {
	asked := online.Blobs()[online.base.Descriptor.Digest.String()]
	if len(asked) != 1 || asked[0].First != int64(len(online.base.Data)/2) {
		return fmt.Errorf("the half that was there was not gone on with: %v", asked)
	}
	return nil
}
