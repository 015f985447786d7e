"""A mail: what stands in it, and the conversation that delivers it. Everything here but the client is pure."""
