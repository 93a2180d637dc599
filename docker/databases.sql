-- What PostgreSQL's image runs once, beside making the service's own database: MLflow has one too.
CREATE DATABASE mlflow;
