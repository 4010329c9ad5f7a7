"""What Xen is: its constants, machines and versions; payloads and hypervisors as it sees them."""
