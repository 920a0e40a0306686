"""What a row of the data is, and the TFX components that carry rows from record files to the trainers."""
