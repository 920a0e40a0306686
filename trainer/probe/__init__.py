"""The offline linear probe on a frozen encoder, and the export of what is served."""
