#!/bin/sh
# Write the settings of compose.yaml with new secrets: ./secrets.sh > .env
# What the first start stored in a database stays as it was: change those there, too.
set -eu
secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
prefect=flywheel:$(secret)
[ ! -f /dev/stdout ] || chmod 600 /dev/stdout
cat <<SETTINGS
FLYWHEEL_HOST=localhost
FLYWHEEL_TLS=internal
COMPOSE_PROFILES=cpu
PREFECT_AUTH_STRING=$prefect
PREFECT_LOGIN=$(printf %s "$prefect" | base64 | tr -d '\n')
MLFLOW_PASSWORD=$(secret)
MLFLOW_SECRET_KEY=$(secret)
POSTGRES_PASSWORD=$(secret)
PREFECT_DATABASE_PASSWORD=$(secret)
MLFLOW_DATABASE_PASSWORD=$(secret)
REDIS_PASSWORD=$(secret)
S3_ACCESS_KEY=flywheel
S3_SECRET_KEY=$(secret)
SETTINGS
