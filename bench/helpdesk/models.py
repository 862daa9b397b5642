"""The helpdesk's tables."""

from __future__ import annotations

from django.db import models


class Customer(models.Model):
    """Who asks."""

    name = models.TextField()

    class Meta:
        """Where it is kept."""

        app_label, db_table = "helpdesk", "customers"


class Ticket(models.Model):
    """What is asked."""

    customer = models.ForeignKey(Customer, models.CASCADE)
    subject = models.TextField()

    class Meta:
        """Where it is kept."""

        app_label, db_table = "helpdesk", "tickets"


class Message(models.Model):
    """What is said about it."""

    ticket_id = models.IntegerField()
    words = models.IntegerField()
    body = models.TextField()

    class Meta:
        """Where it is kept."""

        app_label, db_table = "helpdesk", "messages"


class Tag(models.Model):
    """What it is filed under."""

    ticket_id = models.IntegerField()
    label = models.TextField()

    class Meta:
        """Where it is kept."""

        app_label, db_table = "helpdesk", "tags"
