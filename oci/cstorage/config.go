package cstorage

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.podman.io/storage/types"
)

// rootlessVariable has the ID of the user for whom podman has made the user namespace.
const rootlessVariable = "_CONTAINERS_ROOTLESS_UID"

// complete fills in from storage.conf what the reference leaves open: nothing if it names a store.
func (p place) complete() (place, error) {
	if p.graphRoot != "" {
		return p, nil
	}
	conf, err := configured()
	if err != nil {
		return p, err
	}
	p = place{driver: conf.GraphDriverName, graphRoot: conf.GraphRoot, runRoot: conf.RunRoot}
	if conf.ImageStore != "" {
		p.images = append(p.images, conf.ImageStore)
	}
	p.images = append(p.images, imageStores(conf.GraphDriverOptions)...)
	return p, nil
}

// configured is the store that storage.conf names.
func configured() (types.StoreOptions, error) {
	conf, err := loadConfig()
	if err != nil {
		return conf, fmt.Errorf("read storage.conf: %w", err)
	}
	if own := ownGraphRoot(); own != "" && own != conf.GraphRoot && !reachable(conf.GraphRoot) && reachable(own) {
		// Before version 6 podman takes nobody but root to the graph root of the system's storage.conf.
		conf.GraphRoot, conf.GraphDriverName = own, ""
	}
	return conf, nil
}

// loadConfig reads storage.conf by the library's rules. For an ordinary user that makes a run root, which it only wants to
// name; one that was not there before goes again.
func loadConfig() (types.StoreOptions, error) {
	var made []string
	uid := cmp.Or(os.Getenv(rootlessVariable), strconv.Itoa(os.Getuid()))
	for _, dir := range []string{filepath.Join("/run/user", uid), filepath.Join(os.TempDir(), "storage-run-"+uid)} {
		if _, err := os.Lstat(dir); os.IsNotExist(err) {
			made = append(made, dir)
		}
	}
	defer func() {
		for _, dir := range made {
			_ = os.Remove(dir) // it is empty, or somebody uses it now
		}
	}()
	return types.LoadStoreOptions(types.LoadOptions{})
}

// ownGraphRoot is where the store of an ordinary user is, also in the user namespace that podman makes; empty for root.
func ownGraphRoot() string {
	if os.Geteuid() == 0 && os.Getenv(rootlessVariable) == "" {
		return ""
	}
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "containers/storage")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local/share/containers/storage")
}

// reachable tells whether a directory has the images of some driver.
func reachable(path string) bool { return usedDriver(path) != "" }

// usedDriver is the driver that the images in a directory are of; empty: there are none.
func usedDriver(path string) string {
	d, err := openDir(path)
	if err != nil {
		return ""
	}
	defer d.Close()
	driver, err := findDriver(d, "")
	if err != nil {
		return ""
	}
	return driver
}

// with writes a place in brackets, so that it is found whatever storage.conf says.
func (p place) with(driver string) string {
	s := "[" + driver + "@" + p.graphRoot
	if p.runRoot != "" {
		s += "+" + p.runRoot
	}
	for n, dir := range p.images {
		s += ":,"[min(n, 1):min(n, 1)+1] + driver + ".imagestore=" + dir
	}
	return s + "]"
}

// cutPlace takes the brackets off a reference that parse has read.
func cutPlace(s string) (place, image string) {
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']') + 1
		return s[:end], s[end:]
	}
	return "", s
}
