# RabbitMQ from the system's packages. Tests start private nodes of it; the packaged service stays off.

server_version='3.10.8'
server_variable='INTERLINE_TEST_RABBITMQ_URL'

rabbitmq_programs() {
    local program
    for program in /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server; do
        [ -x "$program" ] && printf '%s\n' "$program"
    done
    return 0
}

server_present() {
    local program
    program=$(rabbitmq_programs | sort -V | tail -n 1)
    [ -n "$program" ] || return 1
    command -v epmd >/dev/null 2>&1 || return 1
    printf '%s\n' "$program"
}

server_plan() {
    printf 'rabbitmq-server (pinned: %s) and the Erlang packages it needs, by apt-get; about 10 s; no service is started\n' \
        "$server_version"
}

server_install() {
    require_apt rabbitmq "$server_variable"
    apt_install rabbitmq-server
    local installed
    installed=$(dpkg-query -W -f '${Version}' rabbitmq-server)
    case $installed in
        "$server_version"-* | "$server_version") ;;
        *)
            # Quorum queues, at-least-once dead-lettering and their feature flags came with 3.10.
            dpkg --compare-versions "$installed" ge 3.10 || die "this system's rabbitmq-server is $installed," \
                "the tests need 3.10 or newer (pinned: $server_version);" \
                "run a server of your own and set $server_variable"
            say "note: this system's rabbitmq-server is $installed; the tests are pinned to $server_version"
            ;;
    esac
}
