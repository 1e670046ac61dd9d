#!/bin/sh
# The databases of Prefect and MLflow, each with an owner of its own; run once, on an empty server.
set -eu
psql --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\getenv prefect PREFECT_DATABASE_PASSWORD
\getenv mlflow MLFLOW_DATABASE_PASSWORD
create role prefect login password :'prefect';
create role mlflow login password :'mlflow';
create database prefect owner prefect;
create database mlflow owner mlflow;
create database mlflow_auth owner mlflow;
SQL
