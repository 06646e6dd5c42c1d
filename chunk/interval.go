package chunk

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// How long a component usually stays as it is when nothing tells.
const (
	// always is for what changes with any package: databases, caches of the linker, an initramfs.
	always = 7 * day
	// grouped is for what somebody put together by hand, which is mostly what the image is made for. chunkah has the same.
	grouped = 7 * day
	// unowned is for what no package has: what a build leaves behind, configuration.
	unowned = 4 * 7 * day
	// unownedBig is for large files that no package has: downloads with versions of their own, which builds leave alone
	// more often than not.
	unownedBig = 8 * 7 * day
	// packaged is for packages of a database without dates, kernels and firmware. Over all packages of a distribution a
	// quarter is long, but those that change often are mostly in databases with dates.
	packaged = 13 * 7 * day
)

// maxInterval bounds what may be said: ten years are the same as never.
const maxInterval = 3660 * day

// ParseInterval reads daily, weekly, biweekly, monthly, quarterly, yearly, or a number of days such as 10 or 10d. The words
// are chunkah's.
func ParseInterval(s string) (time.Duration, error) {
	switch s {
	case "daily":
		return day, nil
	case "weekly":
		return 7 * day, nil
	case "biweekly":
		return 14 * day, nil
	case "monthly":
		return 30 * day, nil
	case "quarterly":
		return 90 * day, nil
	case "yearly":
		return 365 * day, nil
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(s, "d"), 10, 16)
	if err != nil || n == 0 || n > uint64(maxInterval/day) {
		return 0, fmt.Errorf("interval %.40q: it is daily, weekly, biweekly, monthly, quarterly, yearly, or 1 to %d days such as 10d",
			s, maxInterval/day)
	}
	return time.Duration(n) * day, nil
}
