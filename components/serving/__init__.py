"""What serving needs: requests to the exported model, the served folder, the push."""
