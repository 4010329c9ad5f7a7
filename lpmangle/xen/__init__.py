"""What Xen is: its numbers, machines and versions; payloads and hypervisors as it sees them."""
