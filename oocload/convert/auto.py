"""stub for now."""


def choose_codec(*a):
    raise NotImplementedError
