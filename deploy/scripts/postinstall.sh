#!/bin/sh
# After the files are in place. Called with "configure" and the version before, if any, by
# dpkg; with the number of versions installed by rpm. DPKG_ROOT: in another root.
set -e

if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers --root="${DPKG_ROOT:-/}" shoal.conf
fi

# Nothing is started that did not run: it would have nothing to do.
if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	case "$1:$2" in
	configure: | 1:*) ;;
	*) systemctl try-restart shoal-agent.service shoal-publisher.service || true ;; # the package is as it should be
	esac
fi
