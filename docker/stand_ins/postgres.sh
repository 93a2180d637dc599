# Make the database of POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB where there is none, run what is there for that, and serve it.
set -euo pipefail
bin=$(dirname "$(find /usr/lib/postgresql -name initdb)")
export PATH="$bin:$PATH"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username="$POSTGRES_USER" --pwfile=<(echo "$POSTGRES_PASSWORD") --auth=scram-sha-256 --encoding=UTF8 >/dev/null
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
  PGPASSWORD=$POSTGRES_PASSWORD
  export PGPASSWORD
  pg_ctl --wait --silent --options="-c listen_addresses= -k /tmp" start
  createdb --host=/tmp --username="$POSTGRES_USER" "$POSTGRES_DB"
  shopt -s nullglob
  for script in /docker-entrypoint-initdb.d/*.sql; do
    psql --quiet --host=/tmp --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --file="$script"
  done
  pg_ctl --wait --silent stop
fi
exec postgres -c listen_addresses='*' -k /tmp
