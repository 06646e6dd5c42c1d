package main

import "github.com/flatroot/flatroot/mount"

// startServers is how FUSE servers are started for mounts with these options;
// nil where there are none.
func startServers(mount.Options, bool) mount.StartFunc { return nil }
