"""The type checker that `conftest` puts in front of every function of the package."""

from beartype import BeartypeConf, beartype

# As for every static checker, an int will do where a float is wanted.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
