#!/bin/sh
# After the files are gone. What a machine has learned stays until dpkg purges it: then the
# agent's state and configuration go. A publisher's keys and its repository, whose sequence
# numbers no machine accepts twice, never do.
set -e

if [ "$1" = purge ]; then
	root="$DPKG_ROOT"
	unit="$root/etc/systemd/system/shoal-agent.service"
	if grep -qs '^ExecStart=/usr/bin/shoal ' "$unit"; then
		rm -f "$unit"
	fi
	rm -rf "$root/var/lib/shoal" "$root/var/lib/shoal-anchor" "$root/var/cache/shoal"
	for name in agent.yaml join.json fleet.key; do
		rm -f "$root/etc/shoal/$name"
	done
	if [ -d "$root/var/lib/shoal-publisher" ]; then
		echo "shoal: the publisher's repository stays: $root/var/lib/shoal-publisher" >&2
	fi
fi

if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
