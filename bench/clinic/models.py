"""The clinic's tables."""

from __future__ import annotations

from django.db import models


class Doctor(models.Model):
    """Who treats."""

    name = models.TextField()
    next_slot = models.IntegerField(default=0)

    class Meta:
        """Where it is kept."""

        app_label, db_table = "clinic", "doctor"


class Patient(models.Model):
    """Who is treated."""

    name = models.TextField()

    class Meta:
        """Where it is kept."""

        app_label, db_table = "clinic", "patient"


class Visit(models.Model):
    """A patient with a doctor."""

    doctor = models.ForeignKey(Doctor, models.CASCADE)
    patient = models.ForeignKey(Patient, models.CASCADE, related_name="visits")
    reason = models.TextField()

    class Meta:
        """Where it is kept."""

        app_label, db_table = "clinic", "visit"


class Result(models.Model):
    """What the laboratory found."""

    sample = models.TextField()
    kind = models.IntegerField()
    value = models.FloatField()
    comment = models.TextField()

    class Meta:
        """Where it is kept."""

        app_label, db_table = "clinic", "result"


class Medicine(models.Model):
    """What is in the cupboard."""

    shelf = models.IntegerField()
    name = models.TextField()
    left_over = models.IntegerField()

    class Meta:
        """Where it is kept."""

        app_label, db_table = "clinic", "medicine"
