"""What pages draw, of tables that the modules beside this folder make."""
