"""The contract (YAML) and the little Python that binds it: nothing outside this package imports Connexion."""
