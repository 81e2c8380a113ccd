"""`skerry init`: cloudcore into the cluster that a kubeconfig names."""

from __future__ import annotations

from pathlib import Path

import click

from deploy import cluster
from deploy.cluster import Wish
from deploy.errors import TrialError
from deploy.kubectl import Kubectl


@click.command()
@click.option("--image", required=True, help="cloudcore's image, as the cluster's nodes pull it.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    help="A host name or IP address by which boards reach the hub; may be given several times.  "
    "[default: the load balancer's]",
)
@click.option(
    "--service",
    type=click.Choice(cluster.SERVICES),
    default="LoadBalancer",
    show_default=True,
    help="How the hub's port gets out of the cluster.",
)
@click.option("--replicas", type=click.IntRange(1, 9), default=1, show_default=True)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An administrator's access to the cluster.  [default: what kubectl uses]",
)
@click.option("--dry-run", is_flag=True, help="Print the manifests and change nothing; no cluster is needed.")
def init(
    *,
    image: str,
    addresses: tuple[str, ...],
    service: str,
    replicas: int,
    kubeconfig: Path | None,
    dry_run: bool,
) -> None:
    """Put cloudcore into a Kubernetes cluster, and say the line by which a board joins it.

    Running it again changes what differs.  To take it out: skerry init --dry-run --image x | kubectl delete -f -
    """
    wish = Wish(image=image, addresses=addresses, service=service, replicas=replicas)
    cluster.check(wish)
    if dry_run:
        click.echo(cluster.render(wish), nl=False)
        return
    kubectl = Kubectl(kubeconfig)
    if reason := kubectl.is_ready():
        raise TrialError(f"the cluster does not answer: {reason}")
    for line in cluster.install(kubectl, wish):
        click.echo(f"  {line}")
    place = cluster.reached_at(kubectl, wish)
    token = cluster.make_token(kubectl)
    click.echo("\nOn a board, as root (the token is for one board, and good for a day):\n")
    click.echo(f"  skerry join --cloud {place or f'ADDRESS:{cluster.HUB_PORT}'} --token {token}")
    if not place:
        click.echo(
            "\nADDRESS is where boards reach the Service cloudcore; the cluster gave it none yet "
            f"(kubectl -n {cluster.NAMESPACE} get service cloudcore).  Name it with --address."
        )
