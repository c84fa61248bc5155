"""What gatewayd must survive."""
