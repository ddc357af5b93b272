# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
How pydoctor reads this package.

pydoctor shows what C{twisted_heartbeat/__init__.py} re-exports as if it were written there. It then
looks there for the names in docstrings and annotations, where they are not imported. The mix-ins of
this module look for such a name in the module of origin as well.
"""

from __future__ import annotations

from pydoctor import extensions, model


class _AtHome:
    """
    An object that remembers the module in which it was written.
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
    Register the mix-ins. pydoctor calls this.
    """
    registrar.register_mixin(_Class, _Function, _Attribute)


class System(model.System):
    """
    What C{--system-class} names.
    """

    custom_extensions = [__name__]
