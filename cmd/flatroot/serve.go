package main

import (
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse/keeper"
)

// launcher is what FUSE servers are started with for mounts with these options.
func launcher(o mount.Options, foreground bool) *keeper.Launcher {
	return keeper.NewLauncher(keeper.Options{Log: o.Log, Foreground: foreground})
}
