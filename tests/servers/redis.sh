# Redis from the system's packages. Tests start private servers of it; the packaged service stays off.

server_version='7.0.15'
server_variable='INTERLINE_TEST_REDIS_URL'

server_present() { command -v redis-server; }

server_plan() {
    printf 'redis-server (pinned: %s), by apt-get; a few seconds; no service is started\n' "$server_version"
}

server_install() {
    require_apt redis "$server_variable"
    apt_install redis-server
    local installed
    installed=$(dpkg-query -W -f '${Version}' redis-server)
    # The packages carry an epoch.
    case ${installed#*:} in
        "$server_version"-* | "$server_version") ;;
        *)
            # XADD NOMKSTREAM and XPENDING IDLE came with 6.2.
            dpkg --compare-versions "${installed#*:}" ge 6.2 || die "this system's redis-server is $installed," \
                "the tests need 6.2 or newer (pinned: $server_version);" \
                "run a server of your own and set $server_variable"
            say "note: this system's redis-server is $installed; the tests are pinned to $server_version"
            ;;
    esac
}
