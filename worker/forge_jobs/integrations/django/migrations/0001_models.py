"""The models, which make no tables: those of the jobs are made by forge-jobs itself, after each migration."""

from django.db import migrations, models

from forge_jobs.integrations.django.fields import Moment, Tags

OPTIONS = {"managed": False, "default_permissions": ("view", "change")}


class Migration(migrations.Migration):  # type: ignore[misc]  # which has no types here
    """Django knows the models, and makes their permissions."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Job",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("queue", models.CharField(max_length=128)),
                ("kind", models.CharField(max_length=128)),
                ("state", models.CharField(max_length=16)),
                ("priority", models.SmallIntegerField()),
                ("attempt", models.IntegerField(null=True)),
                ("max_attempts", models.IntegerField()),
                ("key", models.CharField(max_length=512, null=True)),
                ("tenant", models.CharField(max_length=128, null=True)),
                ("tags", Tags()),
                ("progress", models.FloatField(null=True)),
                ("created_at", Moment()),
                ("run_at", Moment(null=True)),
                ("claimed_at", Moment(null=True)),
                ("started_at", Moment(null=True)),
                ("finished_at", Moment(null=True)),
                ("error", models.TextField(null=True)),
            ],
            options={"db_table": "jobs", **OPTIONS},
        ),
        migrations.CreateModel(
            name="Queue",
            fields=[
                ("name", models.CharField(max_length=128, primary_key=True, serialize=False)),
                ("paused", models.BooleanField()),
                ("paused_until", Moment(null=True)),
                ("pause_reason", models.TextField(null=True)),
                ("concurrency", models.IntegerField(null=True)),
            ],
            options={"db_table": "queue", **OPTIONS},
        ),
    )
