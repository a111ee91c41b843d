"""IKEv2 state: IKE SAs, Child SAs and one file per exchange."""
