# Shared by tests/servers/install and the files beside it; sourced, never run.
#
# A server is one file, NAME.sh, that defines:
#   server_version      the pinned version, for people
#   server_variable     the environment variable that names a server of one's own
#   server_present      succeeds when a usable server is installed; prints where
#   server_plan         prints, one line each, what server_install would put on the machine
#   server_install      installs it, starting nothing

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# What is built or downloaded, as opposed to installed by the system's packages, goes here.
server_cache() { printf '%s/interline/servers\n' "${XDG_CACHE_HOME:-$HOME/.cache}"; }

require_apt() {
    local server=$1 variable=$2
    command -v apt-get >/dev/null 2>&1 || die "$server is not installed and this system has no apt-get;" \
        "install it by hand, or run a server of your own and set $variable"
    [ "$(id -u)" -eq 0 ] || die "$server is not installed and only root can install packages;" \
        "run 'sudo tests/servers/install $server', or run a server of your own and set $variable"
}

policy_file=/usr/sbin/policy-rc.d
policy_mark='# put here by interline tests/servers while it installs a package'
policy_saved=

# A package that starts its service would take the standard port of the machine.
forbid_services() {
    # One that carries our mark was left by a run that was killed: it is nobody's policy.
    if [ -e "$policy_file" ] && ! grep -qF "$policy_mark" "$policy_file"; then
        policy_saved=$(mktemp "$policy_file.XXXXXX")
        mv -f "$policy_file" "$policy_saved"
    fi
    trap allow_services EXIT
    printf '#!/bin/sh\n%s\nexit 101\n' "$policy_mark" >"$policy_file"
    chmod 755 "$policy_file"
}

allow_services() {
    rm -f "$policy_file"
    if [ -n "$policy_saved" ]; then
        mv -f "$policy_saved" "$policy_file"
        policy_saved=
    fi
    trap - EXIT
}

apt_quiet() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" >&2 </dev/null
}

# The version that would be installed, empty when the lists do not know the package.
apt_candidate() {
    apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: //p' | grep -vx '(none)' || true
}

# Installs packages without starting a service of theirs.
apt_install() {
    local package
    for package in "$@"; do
        if [ -z "$(apt_candidate "$package")" ]; then
            apt_quiet update
            break
        fi
    done
    forbid_services
    # Stale lists name files that the mirror no longer has.
    apt_quiet install -y --no-install-recommends "$@" || {
        apt_quiet update
        apt_quiet install -y --no-install-recommends "$@"
    }
    allow_services
}
