# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
How pydoctor reads this package.

pydoctor shows what C{twisted_heartbeat/__init__.py} re-exports as if it were written there, and
then looks there for the names in its docstrings and annotations, where they are not imported. Here
they are also looked for where the thing was written.
"""

from __future__ import annotations

from pydoctor import extensions, model


class _AtHome:
    """
    What remembers the module it was written in.
    """

    def setup(self) -> None:
        super().setup()
        self._home = self.parent

    def _localNameToFullName(self, name: str) -> str:
        found = super()._localNameToFullName(name)
        return self._home._localNameToFullName(name) if found == name else found


class _Class(_AtHome, extensions.ClassMixin):
    """
    A class that may be shown elsewhere.
    """


class _Function(_AtHome, extensions.FunctionMixin):
    """
    A function that may be shown elsewhere.
    """


class _Attribute(_AtHome, extensions.AttributeMixin):
    """
    A constant or an alias that may be shown elsewhere.
    """


def setup_pydoctor_extension(registrar: extensions.ExtRegistrar) -> None:
    """
    Called by pydoctor.
    """
    registrar.register_mixin(_Class, _Function, _Attribute)


class System(model.System):
    """
    What C{--system-class} names.
    """

    custom_extensions = [__name__]
