"""The chat domain: what a turn is made of, decided without a socket, a file or the environment.

`ports` says what a provider of replies must offer; `extractive` is the one provider that needs no network.
"""
