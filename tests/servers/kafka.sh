# Apache Kafka (KRaft, no ZooKeeper) from Maven Central. Tests start private nodes of it. The client of
# the tests is built from C, so what its build needs is put there too.

server_version='4.0.0'
server_variable='INTERLINE_TEST_KAFKA_URL'

kafka_home() { printf '%s/kafka-%s\n' "$(server_cache)" "$server_version"; }

# The headers come with packages that have no program to look for.
kafka_client_packages() {
    command -v cc >/dev/null 2>&1 && command -v c++ >/dev/null 2>&1 || printf '%s\n' build-essential
    command -v make >/dev/null 2>&1 || printf '%s\n' make
    command -v pkg-config >/dev/null 2>&1 || printf '%s\n' pkg-config
    [ -e /usr/include/zlib.h ] || printf '%s\n' zlib1g-dev
    [ -e /usr/include/openssl/ssl.h ] || printf '%s\n' libssl-dev
}

kafka_server_packages() {
    command -v java >/dev/null 2>&1 || printf '%s\n' default-jre-headless
    [ -e "$(kafka_home)/complete" ] || command -v mvn >/dev/null 2>&1 || printf '%s\n' maven
}

server_present() {
    [ -z "$(kafka_client_packages)" ] || return 1
    command -v java >/dev/null 2>&1 || return 1
    [ -e "$(kafka_home)/complete" ] || return 1
    printf '%s\n' "$(kafka_home)"
}

server_plan() {
    local packages
    packages=$({ kafka_client_packages; kafka_server_packages; } | paste -sd' ')
    if [ -n "$packages" ]; then
        printf '%s, by apt-get, for kafka and for building its client\n' "$packages"
    fi
    if [ ! -e "$(kafka_home)/complete" ]; then
        printf 'Apache Kafka %s from Maven Central into %s; 51 MB, about 10 s; no service is started\n' \
            "$server_version" "$(kafka_home)"
    fi
}

server_install() {
    local packages home work
    mapfile -t packages < <(kafka_client_packages; kafka_server_packages)
    if [ ${#packages[@]} -gt 0 ]; then
        require_apt kafka "$server_variable"
        apt_install "${packages[@]}"
    fi
    home=$(kafka_home)
    [ ! -e "$home/complete" ] || return 0
    mkdir -p "$(server_cache)"
    work=$(mktemp -d "$home.XXXXXX")
    cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>interline</groupId>
  <artifactId>kafka-server</artifactId>
  <version>$server_version</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$server_version</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>$server_version</version>
    </dependency>
  </dependencies>
</project>
POM
    mvn -q -B -f "$work/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$work/lib" >&2 </dev/null || {
        rm -rf "$work"
        die "Apache Kafka $server_version could not be had from Maven Central;" \
            "run a server of your own and set $server_variable"
    }
    touch "$work/complete"
    # Only a whole one gets the name that is looked for; whoever came first keeps it.
    rm -rf "$home"
    mv -T "$work" "$home"
}
