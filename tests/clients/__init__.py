"""Clients that generators make of the contract, driving the live server."""
