#!/bin/sh
# Before the files go: "remove" from dpkg, 0 from rpm; anything else is an upgrade.
set -e

case "$1" in
remove | 0)
	if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
		systemctl disable --now shoal-agent.service shoal-publisher.service || true
	fi
	;;
esac
