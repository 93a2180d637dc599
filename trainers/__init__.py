"""Fine-tuning loops. Importable with torch and transformers alone: no Ray, no MLflow, no service."""
